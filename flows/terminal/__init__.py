"""What people see in a terminal: progress, tables, logs, help pages; and the same as JSON."""
