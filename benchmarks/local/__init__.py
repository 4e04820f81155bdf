"""How fast the model on the box answers, beside what people would pick instead: side by side, in one run."""
