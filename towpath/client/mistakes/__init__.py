"""What a database connection that an application passed cannot do, said so that the application knows what to do."""
