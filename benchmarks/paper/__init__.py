"""The experiments of "Neural Ordinary Differential Equations" (Chen et al., 2018): one command for each."""
