"""Prefect: flows, deployments, services, and what the dashboard shows."""
