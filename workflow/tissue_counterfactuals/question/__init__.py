"""The question that a method is asked: who is held out, who trains, which cells are put where."""
