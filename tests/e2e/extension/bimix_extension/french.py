"""A report in French: English sentences → French ones, with the same fields; what is missing stays English."""

SENTENCES = {
    "recommended": "recommandé",
    "reference": "référence",
    "Data mixture for {tokens} tokens": "Mélange de données pour {tokens} jetons",
}
WRONG = {"Data mixture for {tokens} tokens": "Datenmischung für {Tokens} Tokens"}
