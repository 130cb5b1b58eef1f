"""The background service and its client. No torch outside the worker process."""
