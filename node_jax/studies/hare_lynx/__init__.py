"""The Hudson's Bay record of hare and lynx, fitted by a network and by Lotka and Volterra's equations."""
