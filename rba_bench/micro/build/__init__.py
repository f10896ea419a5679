"""How the shipped weights of the micro world are made: text models, the speech model, and the stages of the build."""
