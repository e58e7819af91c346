"""Find names of technologies and places in a text.

The lists are for noticing that such a name has gone, has changed or has appeared; they need not be complete, because
`terms.check_names` notices other new names too. A name that is an ordinary word in lower case ("Go", "Swift") is only
found with its capitals; places always are.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

_TOKEN = re.compile(r"[^\W_][\w.+#]*")
_MAX_WORDS = 3

# Found in any case.
_TECHNOLOGIES = (
    "python, java, javascript, typescript, coffeescript, php, c++, c#, f#, vb.net, perl, clojure, clojurescript, "
    "haskell, erlang, elixir, ocaml, golang, kotlin, objective-c, objective c, matlab, fortran, cobol, lua, groovy, "
    "sql, t-sql, nosql, html, html5, css, css3, sass, xml, json, graphql, ajax, jquery, angularjs, angular, reactjs, "
    "react.js, react native, react-native, redux, vue.js, vuejs, ember.js, emberjs, backbone.js, backbonejs, d3.js, "
    "three.js, webgl, opengl, directx, node.js, nodejs, express.js, expressjs, meteor.js, django, rails, "
    "ruby on rails, ror, laravel, symfony, zend, drupal, wordpress, magento, joomla, asp.net, .net, hibernate, "
    "scikit-learn, numpy, scipy, pandas, pytorch, tensorflow, keras, theano, opencv, cuda, opencl, hadoop, mapreduce, "
    "hdfs, hbase, zookeeper, rabbitmq, zeromq, redis, memcached, mongodb, mongo, couchdb, cassandra, dynamodb, riak, "
    "neo4j, postgres, postgresql, postgis, mysql, mariadb, sqlite, mssql, sql server, elasticsearch, solr, lucene, "
    "redshift, bigquery, snowflake, aws, ec2, s3, gcp, google cloud, app engine, azure, heroku, openstack, "
    "cloudformation, docker, kubernetes, terraform, ansible, saltstack, vagrant, jenkins, travis ci, circleci, nginx, "
    "apache, tomcat, linux, unix, ubuntu, debian, centos, windows, macos, os x, ios, android, xcode, git, github, "
    "gitlab, svn, jira, selenium, webpack, gulp, nagios, splunk, grafana, prometheus, salesforce, sap, sharepoint, "
    "excel, photoshop, autocad, solidworks, tableau, airflow, llvm, verilog, vhdl, fpga, arduino, raspberry pi, "
    "bluetooth, oauth, websockets, webrtc, bash, powershell, vim, emacs, grpc, protobuf, celery, gevent, haml, "
    "knockout.js, cordova, phonegap, xamarin, unity3d, unreal engine, stata, spss, ethereum, solidity, bitcoin"
)
# Found with these capitals only.
_CAPITAL_TECHNOLOGIES = (
    "Go, Swift, Rust, Ruby, Scala, React, Vue, Ember, Backbone, Meteor, Node, Express, Flask, Spring, Kafka, Spark, "
    "Storm, Akka, Chef, Puppet, Elm, Julia, Dart, Flutter, Unity, Hive, Presto, Flink, Consul, Mesos, Sketch, Figma, "
    "Oracle, Tornado, Bootstrap, Polymer, LESS"
)
_SAME_TECHNOLOGY = {
    "golang": "go",
    "reactjs": "react",
    "react.js": "react",
    "react-native": "react native",
    "vue.js": "vue",
    "vuejs": "vue",
    "ember.js": "ember",
    "emberjs": "ember",
    "backbone.js": "backbone",
    "backbonejs": "backbone",
    "node.js": "node",
    "nodejs": "node",
    "express.js": "express",
    "expressjs": "express",
    "angularjs": "angular",
    "ror": "ruby on rails",
    "postgresql": "postgres",
    "mongo": "mongodb",
    "objective c": "objective-c",
    "html5": "html",
    "css3": "css",
}
_PLACES = (
    "Africa, Alabama, Alaska, Amsterdam, Ann Arbor, Arizona, Arkansas, Argentina, Asia, Athens, Atlanta, Auckland, "
    "Austin, Australia, Austria, Bangalore, Bangkok, Barcelona, Basel, Bay Area, Beijing, Belfast, Belgium, Bergen, "
    "Berkeley, Berlin, Bogota, Bonn, Boston, Boulder, Brazil, Bratislava, Brighton, Brisbane, Bristol, Brooklyn, "
    "Brussels, Bucharest, Budapest, Buenos Aires, Bulgaria, Cairo, Calgary, California, Cambridge, Canada, Cape Town, "
    "Chennai, Chicago, Chile, China, Cincinnati, Cleveland, Cologne, Colombia, Colorado, Connecticut, Copenhagen, "
    "Cork, Croatia, Czech Republic, Dallas, Delhi, Denmark, Denver, Detroit, Dubai, Dublin, Edinburgh, Egypt, England, "
    "Estonia, Europe, Finland, Florida, France, Frankfurt, Geneva, Germany, Ghent, Glasgow, Gothenburg, Graz, Greece, "
    "Hamburg, Hawaii, Helsinki, Hong Kong, Houston, Hungary, Hyderabad, Idaho, Illinois, India, Indiana, Indianapolis, "
    "Indonesia, Iowa, Ireland, Israel, Istanbul, Italy, Jakarta, Japan, Kansas, Kentucky, Kenya, Krakow, Kuala Lumpur, "
    "Kyiv, Kiev, Lagos, Las Vegas, Leeds, Leipzig, Lisbon, London, Los Angeles, Louisiana, Lyon, Madison, Madrid, "
    "Maine, Malaysia, Malmo, Malta, Manchester, Manhattan, Manila, Maryland, Massachusetts, Melbourne, Memphis, "
    "Menlo Park, Mexico, Miami, Michigan, Milan, Milwaukee, Minneapolis, Minnesota, Mississippi, Missouri, Montana, "
    "Montreal, Moscow, Mountain View, Mumbai, Munich, Nairobi, Nashville, Nebraska, Netherlands, Nevada, "
    "New Hampshire, New Jersey, New Mexico, New Orleans, New York, New Zealand, Nigeria, North Carolina, Norway, NYC, "
    "Oakland, Ohio, Oklahoma, Oregon, Orlando, Oslo, Ottawa, Oxford, Palo Alto, Paris, Pasadena, Pennsylvania, Peru, "
    "Philadelphia, Philippines, Phoenix, Pittsburgh, Poland, Porto, Portugal, Prague, Pune, Raleigh, Redwood City, "
    "Romania, Rome, Rotterdam, Russia, Sacramento, Salt Lake City, San Antonio, San Diego, San Francisco, San Jose, "
    "San Mateo, Santa Barbara, Santa Clara, Santa Monica, Santiago, Scotland, Seattle, Seoul, Serbia, Shanghai, "
    "Shenzhen, Silicon Valley, Singapore, Slovakia, Slovenia, Sofia, South Africa, South Carolina, South Korea, Spain, "
    "St. Louis, Stockholm, Stuttgart, Sunnyvale, Sweden, Switzerland, Sydney, Taipei, Taiwan, Tallinn, Tampa, "
    "Tel Aviv, Tennessee, Texas, Thailand, The Hague, Tokyo, Toronto, Toulouse, Turin, Ukraine, United Kingdom, "
    "United States, Utah, Utrecht, Valencia, Vancouver, Vermont, Vienna, Vietnam, Virginia, Wales, Warsaw, Washington, "
    "Wisconsin, Wroclaw, Zagreb, Zurich, Zürich, SF, USA, US, U.S., U.S.A., UK, U.K., EU, EEA"
)
_SAME_PLACE = {
    "nyc": "new york",
    "sf": "san francisco",
    "uk": "united kingdom",
    "u.k.": "united kingdom",
    "us": "united states",
    "usa": "united states",
    "u.s.": "united states",
    "u.s.a.": "united states",
    "kiev": "kyiv",
    "zürich": "zurich",
}
_VERBS = frozenset({"Go", "Express", "Spring", "Storm"})
_AFTER_VERB = re.compile(r"\s+(?:to|beyond|ahead|for|from|through|your|an?|the|and)\b")


class Lexicon:
    """Find listed names of up to three words; several spellings of one thing are one name."""

    def __init__(self, *, any_case: str, capitals: str, same: Mapping[str, str]) -> None:
        """List the names, separated by commas, and which names mean the same as another."""
        self._any_case = {_fold(name.lower()): same.get(name.lower(), name.lower()) for name in _split(any_case)}
        self._capitals = {_fold(name): same.get(name.lower(), name.lower()) for name in _split(capitals)}
        self._first = {words[0] for words in self._any_case}, {words[0] for words in self._capitals}

    @lru_cache(maxsize=4096)  # noqa: B019  (the two lexicons live as long as the program)
    def find(self, text: str) -> dict[str, tuple[int, int]]:
        """Return the names in a text, in one spelling each, and where each first stands; the longest name wins."""
        tokens = list(_TOKEN.finditer(text))
        words = _fold(text)
        lower = tuple(word.lower() for word in words)
        found: dict[str, tuple[int, int]] = {}
        end = 0
        for i in range(len(words)):
            if i < end or not (lower[i] in self._first[0] or words[i] in self._first[1]):
                continue
            for n in range(min(_MAX_WORDS, len(words) - i), 0, -1):
                name = self._any_case.get(lower[i : i + n]) or self._capitals.get(words[i : i + n])
                if name and not (words[i] in _VERBS and _AFTER_VERB.match(text, tokens[i].end())):
                    found.setdefault(name, (tokens[i].start(), tokens[i + n - 1].start() + len(words[i + n - 1])))
                    end = i + n
                    break
        return found


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _fold(text: str) -> tuple[str, ...]:
    return tuple(token.rstrip(".") for token in _TOKEN.findall(text))


TECHNOLOGY_LEXICON = Lexicon(any_case=_TECHNOLOGIES, capitals=_CAPITAL_TECHNOLOGIES, same=_SAME_TECHNOLOGY)
PLACE_LEXICON = Lexicon(any_case="", capitals=_PLACES, same=_SAME_PLACE)
