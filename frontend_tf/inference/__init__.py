"""From a graph without variables to the frozen inference graph: its ends, the part between them, the shapes of its inputs."""
