"""The proof of a saga: every state that it can reach, explored by the machine that runs in production."""
