"""Look inside a critic: what it thinks of each token of given texts, and which n-grams it likes most and least."""
