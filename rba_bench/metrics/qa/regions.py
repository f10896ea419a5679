"""Countries, states and continents: what follows a town's name after a comma tells where it lies."""

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
