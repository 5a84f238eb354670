"""A search's top recipes, trained again with several seeds: the winner, its test accuracy, its model."""
