"""The fault matrix: "never lost, never twice", held by counting on real processes, a real server and a real wire."""
