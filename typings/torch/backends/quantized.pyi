engine: str
