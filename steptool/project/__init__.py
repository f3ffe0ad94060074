"""A team's own repository: its template, and the command that writes one."""
