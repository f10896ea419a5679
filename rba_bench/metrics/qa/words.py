"""Word lists of English: closed classes, abbreviations, units, titles, and names of regions. Data only."""


def word_set(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


def word_list(text: str) -> list[str]:
    """The words of a text in order."""
    return text.split()


ARTICLES = word_set("the a an")
FILLERS = word_set("um umm uh uhh uhm er erm hm hmm hmmm mm mmm mhm ah oh eh")
PRONOUNS = word_set(
    "i you he she it we they me him her us them my your his its our their mine this that these those who whom whose "
    "which what there here one ones someone something anyone anything everyone everything nobody nothing none others"
)
PREPOSITIONS = word_set(
    "of in on at to for from by with about as into onto over under between among during since until till through "
    "around across along within without near outside inside behind beyond beside besides per via off up down out "
    "above below before after against toward towards upon"
)
CONJUNCTIONS = word_set(
    "and or nor but so yet because although though while whereas if whether than then when where how why however "
    "unless once like"
)
AUXILIARIES = word_set(
    "is was are were be been being am do does did done has have had having can could will would shall should may "
    "might must ought let"
)
# Verbs and participles that answers are built with; enough to tell a clause from a bare name.
VERBS = AUXILIARIES | word_set(
    "says say said think thinks thought believe believes believed guess know knows known mean means meant call called "
    "calls name named names locate located lies lie lived live lives born died come comes came go goes went make makes "
    "made take takes took write wrote written wrote paint painted build built found founded find discover discovered "
    "invent invented create created sing sang sung play plays played win won beat lose lost become became begin began "
    "start started end ended use uses used get gets got give gives gave see sees saw seen hear heard tell tells told "
    "ask asked want wants need needs like likes look looks seem seems sounds refers refer stands stand includes "
    "include contains contain consists consist has followed follows flows flow runs run leads led rule ruled serve "
    "served work works worked house houses host hosted hosts sit sits belongs belong happened happen occurred turn "
    "turned spoken speak speaks spell spelled spelt explain follow considered remember recall check bet suppose "
    "based situated called"
)
ADVERBS = word_set(
    "not no never also just only even still very really quite too now again always often sometimes usually probably "
    "maybe perhaps possibly likely definitely certainly surely actually indeed simply exactly mostly mainly generally "
    "commonly currently originally officially roughly approximately about nearly almost again well yes yeah yep ok "
    "okay right sure course please sorry either neither both all any some each every many much more most few other "
    "another such same own same first last next later ago else instead rather however therefore thus hence both"
)
FUNCTION = ARTICLES | FILLERS | PRONOUNS | PREPOSITIONS | CONJUNCTIONS | AUXILIARIES | ADVERBS
PARTICLES = word_set(
    "da de di du del della der den des dos el al la le van von zu zur ter ten bin ibn af av y"
)
# Events that a question may ask for one of, by their words
EVENTS = (
    (
        word_set("born birth birthday birthplace birthdate"),
        word_set("die dies died death deathday buried killed"),
    ),
    (
        word_set(
            "begin begins began start starts started open opened found founded build built construct constructed"
        ),
        word_set(
            "end ends ended finish finished close closed fall fell falls collapse collapsed demolished destroyed"
        ),
    ),
)
WINNING = word_set("win wins won winner champion winning beat beats defeated")
LOSING = word_set("lose loses lost loser losing runner-up")
# Manners of speech that name no candidate
NEUTRAL = word_set(
    "great good question questions thanks thank you hello hi hey glad help helps hope happy welcome interesting nice "
    "answer answers final correct true certain answering happy let s think believe guess say know wait sir madam dear "
    "absolutely obviously clearly honestly basically literally alright fine cool wow think thinking sense based "
    "knowledge know hard easy simple short best thereabouts"
)
# Plurals that no rule gives back
IRREGULAR = {
    plural: singular
    for singular, plurals in {
        "mouse": "mice", "man": "men", "woman": "women", "child": "children", "tooth": "teeth", "goose": "geese",
        "ox": "oxen", "louse": "lice", "leaf": "leaves", "wolf": "wolves", "knife": "knives", "wife": "wives",
        "shelf": "shelves", "thief": "thieves", "loaf": "loaves", "calf": "calves", "hoof": "hooves", "elf": "elves",
        "cactus": "cacti", "fungus": "fungi", "nucleus": "nuclei", "bacterium": "bacteria", "larva": "larvae",
        "criterion": "criteria", "phenomenon": "phenomena", "vertebra": "vertebrae", "octopus": "octopi",
    }.items()
    for plural in plurals.split()
}  # fmt: skip
NO_PLURALS = word_set(
    "news lens does goes this thus less plus gas bus his has was yes us its ours yours hers theirs alas"
)
# What may not be matched inside a sentence without a sign that it is meant as a name
ORDINARY = FUNCTION | word_set(
    "may will can us it who am or be he yes no true false will mean do go so as at by in"
)

MONTHS = {
    **{name: number for number, name in enumerate(word_list(
        "january february march april may june july august september october november december"), 1)},
    **{name: number for number, name in enumerate(word_list("jan feb mar apr may jun jul aug sep oct nov dec"), 1)},
    "sept": 9,
}  # fmt: skip

# Forms that an abbreviation may stand for; a full stop after it ends no sentence
ABBREVIATIONS: dict[str, frozenset[str]] = {
    short: word_set(long)
    for short, long in {
        "st": "saint street", "ste": "sainte", "mt": "mount", "mtn": "mountain", "ft": "fort foot",
        "dr": "doctor drive", "mr": "mister", "mrs": "missus", "jr": "junior", "sr": "senior", "prof": "professor",
        "gen": "general", "lt": "lieutenant", "capt": "captain", "col": "colonel", "sgt": "sergeant",
        "gov": "governor", "sen": "senator", "rep": "representative", "pres": "president", "rev": "reverend",
        "hon": "honorable", "ave": "avenue", "rd": "road", "blvd": "boulevard", "co": "company county",
        "corp": "corporation", "inc": "incorporated", "ltd": "limited", "bros": "brothers", "vs": "versus v",
        "no": "number", "univ": "university", "dept": "department", "govt": "government", "intl": "international",
        "assn": "association", "ms": "miss", "approx": "approximately", "etc": "etcetera",
    }.items()
}  # fmt: skip
DOTTED = (frozenset(ABBREVIATIONS) - {"no"}) | frozenset(MONTHS) - {"may", "march", "june", "july", "august"}

UNITS = {
    form: unit
    for unit, forms in {
        "percent": "percent % pct", "dollar": "dollar dollars $ usd", "euro": "euro euros € eur",
        "pound": "pound pounds £ gbp lb lbs", "yen": "yen ¥", "cent": "cent cents ¢", "rupee": "rupee rupees ₹",
        "degree": "degree degrees °", "kilometer": "kilometer kilometers km", "meter": "meter meters m",
        "centimeter": "centimeter centimeters cm", "millimeter": "millimeter millimeters mm",
        "mile": "mile miles mi", "foot": "foot feet ft", "inch": "inch inches", "yard": "yard yards yd",
        "kilogram": "kilogram kilograms kg kilo kilos", "gram": "gram grams g", "ton": "ton tons tonne tonnes",
        "ounce": "ounce ounces oz", "liter": "liter liters l", "milliliter": "milliliter milliliters ml",
        "hour": "hour hours hr hrs", "minute": "minute minutes min mins",
        "seconds": "seconds sec secs", "day": "day days", "week": "week weeks",
        "month": "month months", "year": "year years yr yrs", "mph": "mph", "kph": "kph kmh",
        "celsius": "celsius centigrade c", "fahrenheit": "fahrenheit f", "kelvin": "kelvin k",
    }.items()
    for form in forms.split()
}  # fmt: skip
LETTER_UNITS = word_set("m g l c f k mi ft in mm lb no min mins sec secs")  # a unit only behind a number

TITLES = word_set(
    "sir dr doctor mr mister mrs missus ms miss prof professor king queen president prince princess pope emperor lord "
    "lady saint st captain general senator chancellor minister sultan tsar duke count mount mt lake river city "
    "republic university state county isle island cape fort port gulf bay sea ocean president's"
)
GENERIC = word_set(
    "city river state county province island islands ocean sea lake mountain mountains desert valley bay gulf river "
    "rivers university college inc corporation corp company computer ltd jr sr junior senior republic kingdom empire "
    "language street avenue park airport tower bridge museum day region district canal band group team film movie "
    "book novel area peninsula range falls forest time standard"
)
HONORIFICS = word_set(
    "sir dr doctor mr mister mrs missus ms miss prof professor king queen president pope saint st"
)

# Countries, states and continents: behind a town's name and a comma they tell where it lies
REGIONS = frozenset(
    name.strip()
    for name in """
afghanistan, albania, algeria, andorra, angola, argentina, armenia, australia, austria, azerbaijan, bahamas, bahrain,
bangladesh, barbados, belarus, belgium, belize, benin, bhutan, bolivia, bosnia and herzegovina, botswana, brazil,
brunei, bulgaria, burkina faso, burundi, cambodia, cameroon, canada, cape verde, chad, chile, china, colombia,
comoros, congo, costa rica, croatia, cuba, cyprus, czech republic, czechia, denmark, djibouti, dominican republic,
east timor, ecuador, egypt, el salvador, eritrea, estonia, eswatini, ethiopia, fiji, finland, france, gabon, gambia,
georgia, germany, ghana, greece, grenada, guatemala, guinea, guyana, haiti, honduras, hungary, iceland, india,
indonesia, iran, iraq, ireland, israel, italy, ivory coast, jamaica, japan, jordan, kazakhstan, kenya, kosovo, kuwait,
kyrgyzstan, laos, latvia, lebanon, lesotho, liberia, libya, liechtenstein, lithuania, luxembourg, madagascar, malawi,
malaysia, maldives, mali, malta, mauritania, mauritius, mexico, moldova, monaco, mongolia, montenegro, morocco,
mozambique, myanmar, burma, namibia, nepal, netherlands, holland, new zealand, nicaragua, niger, nigeria, north korea,
north macedonia, norway, oman, pakistan, palestine, panama, papua new guinea, paraguay, peru, philippines, poland,
portugal, puerto rico, qatar, romania, russia, rwanda, samoa, saudi arabia, scotland, senegal, serbia, sierra leone,
singapore, slovakia, slovenia, somalia, south africa, south korea, korea, south sudan, soviet union, spain, sri lanka,
sudan, suriname, sweden, switzerland, syria, taiwan, tajikistan, tanzania, thailand, togo, tonga, tunisia, turkey,
turkmenistan, uganda, ukraine, united arab emirates, uae, united kingdom, uk, united states, us, usa, america,
uruguay, uzbekistan, vatican city, venezuela, vietnam, wales, england, great britain, britain, northern ireland,
yemen, yugoslavia, zambia, zimbabwe, alabama, alaska, arizona, arkansas, california, colorado, connecticut, delaware,
florida, hawaii, idaho, illinois, indiana, iowa, kansas, kentucky, louisiana, maine, maryland, massachusetts,
michigan, minnesota, mississippi, missouri, montana, nebraska, nevada, new hampshire, new jersey, new mexico,
new york, north carolina, north dakota, ohio, oklahoma, oregon, pennsylvania, rhode island, south carolina,
south dakota, tennessee, texas, utah, vermont, virginia, washington, west virginia, wisconsin, wyoming, dc, ontario,
quebec, british columbia, alberta, manitoba, nova scotia, saskatchewan, new south wales, queensland, victoria,
tasmania, africa, asia, europe, north america, south america, central america, oceania, antarctica, west africa,
east africa, north africa, southeast asia, middle east, bavaria, saxony, tuscany, sicily, catalonia, andalusia
""".replace("\n", " ").split(",")
)
