"""What each of a hundred thousand waiting calls costs, in multiples of each of a thousand."""
