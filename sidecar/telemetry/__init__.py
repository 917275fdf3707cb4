"""What operators see: logs, metrics, health and the last minutes. All observe facts."""
