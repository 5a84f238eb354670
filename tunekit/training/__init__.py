"""Training one recipe: optimizer, schedule, epoch loop, checkpoint. Torch only; no Ray, no MLflow."""
