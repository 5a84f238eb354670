"""What to try and what to stop (plain numbers), and the rooms that hand it to Ray Tune."""
