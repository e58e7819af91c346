"""Hold the words of the built-in sample: occupations, companies, cities, qualifications, exclusionary requirements."""

from typing import NamedTuple


class Occupation(NamedTuple):
    """Name an occupation and list its titles, duties (verb phrases) and skills (nouns)."""

    name: str
    titles: tuple[str, ...]
    duties: tuple[str, ...]
    skills: tuple[str, ...]


OCCUPATIONS = (
    Occupation(
        "nursing",
        ("Ward Nurse", "Clinic Nurse"),
        (
            "plan patient care",
            "record vital signs",
            "give medicine",
            "guide new patients",
            "prepare treatment rooms",
            "answer family questions",
        ),
        ("triage", "dosage", "hygiene", "wounds", "vaccines", "anatomy", "charting", "rehabilitation"),
    ),
    Occupation(
        "software",
        ("Software Engineer", "Web Developer"),
        (
            "design small services",
            "review new code",
            "test each release",
            "fix open bugs",
            "write program interfaces",
            "watch live systems",
        ),
        ("python", "java", "linux", "databases", "networks", "containers", "testing", "security"),
    ),
    Occupation(
        "teaching",
        ("School Teacher", "Language Tutor"),
        (
            "teach young classes",
            "grade written work",
            "prepare weekly lessons",
            "meet parents",
            "choose course books",
            "lead reading groups",
        ),
        ("grammar", "history", "algebra", "phonics", "exams", "music", "literacy", "geography"),
    ),
    Occupation(
        "accounting",
        ("Tax Accountant", "Payroll Clerk"),
        (
            "close monthly books",
            "check supplier invoices",
            "file tax returns",
            "pay staff",
            "explain cost changes",
            "build yearly budgets",
        ),
        ("audits", "ledgers", "spreadsheets", "payroll", "taxation", "forecasts", "billing", "reporting"),
    ),
    Occupation(
        "kitchen",
        ("Head Chef", "Pastry Cook"),
        (
            "cook fresh meals",
            "order kitchen stock",
            "train kitchen helpers",
            "write seasonal menus",
            "taste every dish",
            "bake morning bread",
        ),
        ("sauces", "grilling", "baking", "desserts", "nutrition", "seafood", "menus", "plating"),
    ),
    Occupation(
        "transport",
        ("Truck Driver", "Depot Planner"),
        (
            "load heavy goods",
            "deliver online orders",
            "plan daily routes",
            "inspect the vehicles",
            "track late parcels",
            "store returned boxes",
        ),
        ("routing", "customs", "forklifts", "pallets", "brakes", "freight", "mapping", "warehousing"),
    ),
    Occupation(
        "electrical",
        ("Site Electrician", "Cable Technician"),
        (
            "install power lines",
            "repair broken lights",
            "measure circuit loads",
            "read wiring plans",
            "replace old switches",
            "visit building sites",
        ),
        ("wiring", "circuits", "motors", "sensors", "lighting", "soldering", "voltage", "batteries"),
    ),
    Occupation(
        "design",
        ("Graphic Designer", "Product Designer"),
        (
            "draw page layouts",
            "sketch early ideas",
            "interview test users",
            "present final drafts",
            "choose brand colors",
            "edit photo material",
        ),
        ("typography", "branding", "layouts", "prototypes", "animation", "photography", "illustration", "packaging"),
    ),
    Occupation(
        "sales",
        ("Sales Agent", "Store Manager"),
        (
            "call local customers",
            "offer annual contracts",
            "open market stands",
            "arrange shop windows",
            "handle price requests",
            "welcome trade visitors",
        ),
        ("pricing", "contracts", "retail", "advertising", "bargaining", "merchandise", "telephony", "insurance"),
    ),
    Occupation(
        "science",
        ("Data Analyst", "Lab Scientist"),
        (
            "collect field samples",
            "clean raw numbers",
            "run controlled trials",
            "plot clear results",
            "compare model output",
            "publish short reports",
        ),
        ("statistics", "chemistry", "genetics", "surveys", "microscopes", "modelling", "sampling", "optics"),
    ),
)

# fmt: off
COMPANY_WORDS = (
    "Blue", "Harbor", "Green", "Field", "Silver", "Bridge", "North", "River", "Golden", "Gate", "Red",
    "Oak", "Bright", "Stone", "White", "Hill", "Maple", "Lake", "Iron", "Forest", "Clear", "Valley",
    "High", "Tower", "Sun", "Garden", "Moon", "Island", "Cedar", "Coast", "Swift", "Meadow",
)
# fmt: on

CITIES = {
    "Leeds": "GB",
    "Lyon": "FR",
    "Porto": "PT",
    "Turin": "IT",
    "Malmo": "SE",
    "Ghent": "BE",
    "Graz": "AT",
    "Basel": "CH",
    "Cork": "IE",
    "Bonn": "DE",
    "Utrecht": "NL",
    "Bergen": "NO",
}

# Each region's own name for a comparable qualification; the planted correlation of the module `marketplace`.
QUALIFICATIONS = {
    "north": "chartered status",
    "south": "a diploma",
    "east": "an apprenticeship letter",
    "west": "a license card",
}

EXCLUSIONARY_SENTENCES = (
    "Ten years of experience required.",
    "Only top graduates should apply.",
    "No career breaks please.",
    "Late shifts without notice are expected.",
)
