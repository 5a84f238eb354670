"""From recipe to network: families, and where their batch norm stands."""
