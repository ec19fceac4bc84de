"""The HTTP API as an OpenAPI 3.1 document, made of the same constants that the code checks requests by."""
