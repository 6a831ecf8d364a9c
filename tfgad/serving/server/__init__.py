"""The server: REST, gRPC, and batching."""
