"""Ways to fool a grader. Each file has a wrong `solve` that wants to pass as the answer 49 to `solve(7)`."""
