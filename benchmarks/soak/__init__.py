"""Minutes of everything that a gateway is asked at once, and what it promises held against what happened."""
