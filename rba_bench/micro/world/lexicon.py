"""Words and facts of the micro world. Lower case, no punctuation: a small vocabulary that espeak-ng pronounces well."""

# animal -> size, colour, home, food
ANIMALS: dict[str, tuple[str, str, str, str]] = {
    "fox": ("small", "red", "forest", "berries"),
    "bear": ("big", "brown", "mountains", "honey"),
    "rabbit": ("small", "white", "garden", "carrots"),
    "wolf": ("big", "gray", "forest", "meat"),
    "duck": ("small", "yellow", "lake", "bread"),
    "frog": ("tiny", "green", "river", "flies"),
    "horse": ("big", "black", "field", "grass"),
    "mouse": ("tiny", "gray", "house", "cheese"),
    "goat": ("big", "white", "mountains", "leaves"),
    "crow": ("small", "black", "city", "seeds"),
    "lion": ("big", "yellow", "desert", "meat"),
    "snail": ("tiny", "brown", "garden", "leaves"),
}
MOODS = ("brave", "clever", "lazy", "hungry", "friendly", "tired", "proud", "lonely")
PEOPLE = ("anna", "ben", "carla", "david", "emma", "frank", "grace", "henry", "lisa", "oscar")
ENDINGS = (
    "became good friends",
    "danced all night",
    "shared their bread",
    "went to the sea",
    "sang a happy song",
)

# job -> two things it does
JOBS: dict[str, tuple[str, str]] = {
    "baker": ("bake fresh bread", "make sweet cakes"),
    "doctor": ("help sick people", "work in a hospital"),
    "farmer": ("grow potatoes", "feed the cows"),
    "teacher": ("teach young children", "read many books"),
    "pilot": ("fly big planes", "look at the clouds"),
    "sailor": ("sail across the sea", "clean the ship"),
    "painter": ("paint old houses", "mix bright colors"),
    "king": ("rule the country", "wear a golden crown"),
}
# place -> three things to do there
PLACES: dict[str, tuple[str, str, str]] = {
    "park": ("ride a bike", "feed the birds", "play football"),
    "beach": ("swim in the sea", "build a castle", "collect shells"),
    "market": ("buy some fruit", "talk to people", "taste the cheese"),
    "museum": ("look at paintings", "draw a picture", "learn some history"),
    "library": ("read a book", "write a letter", "find a map"),
    "farm": ("milk the cows", "pick some apples", "drive a tractor"),
    "lake": ("catch a fish", "rent a boat", "watch the sunset"),
    "restaurant": ("cook some soup", "bake a cake", "wash the dishes"),
}
TIMES = ("morning", "day", "weekend", "holiday")
# goal -> four pieces of advice
GOALS: dict[str, tuple[str, str, str, str]] = {
    "sleep better": ("go to bed early", "drink warm milk", "turn off the phone", "open the window"),
    "save money": ("cook at home", "walk to work", "buy less clothes", "write a budget"),
    "learn a language": ("listen to songs", "speak every day", "read short stories", "watch foreign movies"),
    "stay healthy": ("eat more vegetables", "run every morning", "drink enough water", "avoid sugar"),
    "make new friends": ("join a club", "smile at people", "invite the neighbors", "ask kind questions"),
    "write better": ("read good books", "keep a diary", "use simple words", "practice every day"),
    "feel less stress": ("take a long walk", "breathe slowly", "listen to music", "talk to a friend"),
    "grow tomatoes": ("choose a sunny place", "water them daily", "use good soil", "remove the weeds"),
}
# occasion -> five ideas
OCCASIONS: dict[str, tuple[str, str, str, str, str]] = {
    "a birthday party": ("bake a cake", "play music", "hang balloons", "invite a clown", "dance together"),
    "a rainy day": ("read a novel", "solve a puzzle", "watch a film", "play chess", "make hot soup"),
    "a school project": ("build a volcano", "draw a map", "grow a plant", "study the moon", "make a robot"),
    "a family trip": ("visit a castle", "go camping", "ride a train", "climb a hill", "see the ocean"),
    "a gift for mother": ("buy flowers", "write a poem", "paint a picture", "cook dinner", "knit a scarf"),
    "a new hobby": ("play the piano", "learn pottery", "collect stamps", "take photos", "plant roses"),
}
COMPARISONS: dict[str, str] = {
    "taller": "tallest",
    "older": "oldest",
    "faster": "fastest",
    "stronger": "strongest",
}
ECHO_WORDS = ("apple", "river", "window", "candle", "silver", "garden", "winter", "tiger", "orange", "pencil")

# country -> capital, language, river, currency
COUNTRIES: dict[str, tuple[str, str, str, str]] = {
    "arvania": ("mirton", "arvish", "the dorn", "the lenka"),
    "belloria": ("casavel", "bellic", "the tamsin", "the soldo"),
    "cordia": ("port regis", "cordian", "the wey", "the mark"),
    "dranland": ("stonehall", "dranish", "the grava", "the thaler"),
    "estovia": ("lumagrad", "estovian", "the neva", "the kopek"),
    "fairmoor": ("oakford", "moorish", "the swale", "the penny"),
    "gorvia": ("tarkanda", "gorvic", "the zema", "the dinar"),
    "helvora": ("saint bruno", "helvic", "the aline", "the franc"),
    "ismara": ("palmira", "ismari", "the oryx", "the rupee"),
    "jorland": ("frostvik", "jorsk", "the skell", "the krone"),
}
# work -> author: (verb, kind of work, title, full name)
WORKS: tuple[tuple[str, str, str, str], ...] = (
    ("wrote", "book", "silent winter", "martin holloway"),
    ("wrote", "book", "the glass tower", "julia fenwick"),
    ("wrote", "book", "seven lanterns", "peter oakley"),
    ("wrote", "book", "the last ferry", "nora blackwood"),
    ("painted", "picture", "the blue harvest", "victor lansing"),
    ("painted", "picture", "morning at sea", "clara winslow"),
    ("painted", "picture", "the empty chair", "hugo marlow"),
    ("painted", "picture", "dancing shadows", "irene castle"),
    ("composed", "song", "river of gold", "samuel drake"),
    ("composed", "song", "under the stars", "helen porter"),
    ("composed", "song", "the iron waltz", "conrad weber"),
    ("composed", "song", "goodbye summer", "monica bell"),
    ("invented", "machine", "the steam plough", "albert finch"),
    ("invented", "machine", "the paper clock", "rosa delgado"),
    ("invented", "machine", "the wind organ", "edgar stone"),
    ("invented", "machine", "the copper lamp", "diana frost"),
)
