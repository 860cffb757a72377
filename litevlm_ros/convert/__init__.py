"""From a checkpoint to graphs and engines. The only library package that imports PyTorch."""
