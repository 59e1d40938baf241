"""The grammars that come with the operator; docs/grammars.md describes them. Each gets to an end by itself."""

from __future__ import annotations

from llamamodel_operator.api.sources import BuiltinGrammar

__all__ = ["builtin_grammar"]


def builtin_grammar(name: BuiltinGrammar) -> str:
    """The grammar in GBNF."""
    return _GRAMMARS[name]


# A small model that samples greedily repeats itself: it neither closes a string nor a list by its own will, and it
# loves white space. So everything has a last element, and there is one space at most, and that after a comma or colon.
_JSON = r"""
object  ::= "{" ( pair ( "," " "? pair ){0,11} )? "}"
array   ::= "[" ( value ( "," " "? value ){0,11} )? "]"
pair    ::= key value
value   ::= "{" ( pair2 ( "," " "? pair2 ){0,5} )? "}" | "[" ( value2 ( "," " "? value2 ){0,5} )? "]" | scalar
pair2   ::= key value2
value2  ::= "{" ( pair3 ( "," " "? pair3 ){0,3} )? "}" | "[" ( scalar ( "," " "? scalar ){0,3} )? "]" | scalar
pair3   ::= key scalar
key     ::= "\"" char{1,32} "\":" " "?
scalar  ::= "\"" char{0,256} "\"" | number | "true" | "false" | "null"
number  ::= "-"? ( "0" | [1-9] [0-9]{0,14} ) ( "." [0-9]{1,9} )? ( [eE] [-+]? [0-9]{1,2} )?
char    ::= [^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]
"""

_GRAMMARS = {
    BuiltinGrammar.JSON: "root    ::= object | array" + _JSON,
    BuiltinGrammar.JSON_OBJECT: "root    ::= object" + _JSON,
    BuiltinGrammar.JSON_ARRAY: "root    ::= array" + _JSON,
    BuiltinGrammar.LIST: r"""
root ::= item{1,12}
item ::= "- " [^ \t\r\n] [^\r\n]{0,79} "\n"
""",
    BuiltinGrammar.YES_NO: r"""
root ::= "yes" | "no"
""",
    BuiltinGrammar.INTEGER: r"""
root ::= "-"? ( "0" | [1-9] [0-9]{0,14} )
""",
    BuiltinGrammar.NUMBER: r"""
root ::= "-"? ( "0" | [1-9] [0-9]{0,14} ) ( "." [0-9]{1,9} )? ( [eE] [-+]? [0-9]{1,2} )?
""",
    BuiltinGrammar.DATE: r"""
root   ::= year "-" ( long "-" to31 | short "-" to30 | "02-" to28 ) | leap "-02-29"
year   ::= [12] [0-9]{3}
leap   ::= [12] [0-9] ( "0" [48] | [2468] [048] | [13579] [26] ) | ( "1" [26] | "2" [048] ) "00"
long   ::= "01" | "03" | "05" | "07" | "08" | "10" | "12"
short  ::= "04" | "06" | "09" | "11"
to28   ::= "0" [1-9] | "1" [0-9] | "2" [0-8]
to30   ::= to28 | "29" | "30"
to31   ::= to30 | "31"
""",
    BuiltinGrammar.URI: r"""
root     ::= "http" "s"? "://" ( label "." ){1,4} [a-z]{2,12} ( ":" [1-9] [0-9]{0,3} )? path query? fragment?
label    ::= [a-z0-9] ( [a-z0-9-]{0,30} [a-z0-9] )?
path     ::= ( "/" char{0,40} ){0,6}
query    ::= "?" ( char | [/?] ){1,80}
fragment ::= "#" ( char | [/?] ){1,40}
char     ::= [a-zA-Z0-9._~!$&'()*+,;=:@-] | "%" [0-9A-F]{2}
""",
    BuiltinGrammar.CSV: r"""
root  ::= row2{2,11} | row3{2,11} | row4{2,11} | row5{2,11} | row6{2,11}
row2  ::= field "," field "\n"
row3  ::= field "," row2
row4  ::= field "," row3
row5  ::= field "," row4
row6  ::= field "," row5
field ::= [^",\r\n]{0,32} | "\"" ( [^"\r\n] | "\"\"" ){0,48} "\""
""",
}
