"""Plain Faust agents on top of the engine: the transport, and the application that a user's file makes."""
