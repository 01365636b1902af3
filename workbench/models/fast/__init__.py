"""Optional fast paths, each proven equal to the library's: packed forward, fused head and layers, a CPU decoder."""
