"""The server: REST, gRPC, batching."""
