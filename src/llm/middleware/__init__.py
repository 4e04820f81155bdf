"""The layers of a call's chain, one class each, and how they are composed."""
