"""What the dashboard shows: looked up once a second for all who watch, and not at all while nobody does."""
