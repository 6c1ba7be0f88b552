"""CraftyGoods' demo: a day in the shop, and the books that must balance after it.

`traffic.py` invents customers, products and baskets, `invariants.py` says what must hold (both pure), `postgres.py`
goes through the services' doors and reads their databases, `demo.py` is what `towpath.toml` names.
"""

from pipelines.demo.demo import CraftyGoods

demo = CraftyGoods()

__all__ = ["demo"]
