"""Real postings, a pretrained language model, and gains asked for under engines and people never trained on."""
