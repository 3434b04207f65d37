"""What longrun adds to an MLflow tracking server: `mlflow server --app-name longrun`."""
