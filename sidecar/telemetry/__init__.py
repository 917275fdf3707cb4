"""What operators see of what happens: logs, metrics, health and the last minutes. All observe facts."""
