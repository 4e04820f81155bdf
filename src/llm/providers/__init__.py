"""Who answers: vendors over HTTP, each a dialect on a transport, and models on the box."""
