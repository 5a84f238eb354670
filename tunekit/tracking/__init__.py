"""The history of a search, written to MLflow. The only room that imports mlflow."""
