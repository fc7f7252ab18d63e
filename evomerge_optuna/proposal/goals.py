"""What a merge may be for, and what answers a user gives for nothing in particular."""

GOALS = {  # types of tasks, in words that go on "a merge that is to"
    "generate": "write the right answer",
    "choice": "choose the right option",
    "perplexity": "predict texts",
    "vqa": "answer questions about pictures",
    "image": "draw pictures",
}
IN_A_LANGUAGE = ("generate", "vqa")
IN_ONE_COLUMN = ("perplexity", "image")  # of texts, without answers
ANY = "any"  # language
NONE = "none"  # base model
HUMAN = "human"  # judge
CLIP = "openai/clip-vit-large-patch14"  # judge
