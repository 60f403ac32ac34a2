//! REST, WebSocket, OpenAPI; one file a resource.
