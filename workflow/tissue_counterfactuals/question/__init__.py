"""The question that a method is asked: who is held out, who trains, which cells are put where."""

# Intervention of a user's question -> what a method must be able to answer.
INTERVENTIONS = {
    "move_to": "edge",
    "composition": "edge",
    "remove_sender": "edge",
    "add_sender": "edge",
    "shift_genes": "node",
    "shift_towards": "node",
    "shift_pathway": "node",
    "knock_out": "own",
}
