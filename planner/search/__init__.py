"""Finding the cheapest legal plan that keeps the accuracy: cost, sensitivity, search."""
