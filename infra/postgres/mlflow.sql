-- Run once, when the data folder is made: MLflow's tables apart from the ledger's.
CREATE DATABASE mlflow;
