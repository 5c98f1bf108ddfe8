"""Celery workers that do the cloud calls of one account and region. Settings, then wiring, then tasks."""
