"""What the shopping app's users do: event names by how often they happen, each with properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

#: Ready-made texts per event name; more would only cost memory.
VARIANTS: Final = 400

_CATEGORIES: Final = ("Shoes", "Jackets", "Home & Garden", "Électronique", "Spielzeug", "本")
_CURRENCIES: Final = ("EUR", "USD", "GBP", "JPY")
_QUERIES: Final = ("red sneakers", "lampe für küche", "gift", "usb-c cable", "größe 42", "☃ globe", 'toys "4+"')
_SCREENS: Final = ("Home", "Category", "Product", "Cart", "Account", "Settings")

Make = Callable[[np.random.Generator], dict[str, object]]


def _product(rng: np.random.Generator) -> dict[str, object]:
    return {
        "product_id": f"sku-{rng.integers(1, 20_000)}",
        "category": _CATEGORIES[rng.integers(len(_CATEGORIES))],
        "price": round(float(rng.gamma(2.0, 25.0)), 2),
        "currency": _CURRENCIES[rng.integers(len(_CURRENCIES))],
    }


def _listed(rng: np.random.Generator) -> dict[str, object]:
    return {"list_id": f"list-{rng.integers(1, 200)}", "position": int(rng.integers(1, 60)), **_product(rng)}


def _cart(rng: np.random.Generator) -> dict[str, object]:
    items = int(rng.integers(1, 6))
    return {"cart_id": f"c-{rng.integers(1, 1 << 31)}", "items": items, "value": round(float(rng.gamma(2.0, 40.0)), 2)}


def _order(rng: np.random.Generator) -> dict[str, object]:
    products = [_product(rng) for _ in range(int(rng.integers(1, 4)))]
    return {"order_id": f"o-{rng.integers(1, 1 << 40)}", "products": products, **_cart(rng)}


def _search(rng: np.random.Generator) -> dict[str, object]:
    return {"query": _QUERIES[rng.integers(len(_QUERIES))], "results": int(rng.integers(0, 400))}


def _plain(rng: np.random.Generator) -> dict[str, object]:
    return {"source": ("push", "organic", "deeplink")[rng.integers(3)], "duration_ms": int(rng.integers(20, 9_000))}


def _screen(rng: np.random.Generator) -> dict[str, object]:
    return {"name": _SCREENS[rng.integers(len(_SCREENS))], "referrer": _SCREENS[rng.integers(len(_SCREENS))]}


@dataclass(frozen=True, slots=True)
class Kind:
    """One event name: its type, and what makes its properties."""

    event: str
    make: Make
    type: str = "track"


#: The most frequent first: frequencies follow Zipf's law.
KINDS: Final = (
    Kind("Product Viewed", _product),
    Kind("screen", _screen, "screen"),
    Kind("Product List Viewed", _listed),
    Kind("Product Clicked", _listed),
    Kind("Application Opened", _plain),
    Kind("Products Searched", _search),
    Kind("Product Added", _product),
    Kind("Cart Viewed", _cart),
    Kind("Application Backgrounded", _plain),
    Kind("Product Added to Wishlist", _product),
    Kind("Checkout Started", _cart),
    Kind("Product Removed", _product),
    Kind("Checkout Step Viewed", _cart),
    Kind("Payment Info Entered", _cart),
    Kind("Order Completed", _order),
    Kind("Promotion Viewed", _listed),
    Kind("Promotion Clicked", _listed),
    Kind("Push Notification Received", _plain),
    Kind("Push Notification Tapped", _plain),
    Kind("Coupon Applied", _cart),
    Kind("Product Shared", _product),
    Kind("Product Reviewed", _product),
    Kind("Signed In", _plain),
    Kind("Order Refunded", _order),
    Kind("Application Updated", _plain),
)


@dataclass(frozen=True, slots=True)
class Texts:
    """Ready-made JSON, VARIANTS for each kind in turn."""

    fragments: list[bytes]  # "type":…,"event":…,"properties":{…}
    events: list[str]  # the stored event name
    properties: list[bytes]  # the stored properties
    weights: np.ndarray[tuple[int], np.dtype[np.float64]]  # how often each kind happens


def texts(seed: int) -> Texts:
    """The catalogue's texts for a seed."""
    rng = np.random.default_rng([seed, 1])
    made = Texts([], [], [], 1 / np.arange(1, len(KINDS) + 1) ** 1.1)
    for kind in KINDS:
        for _ in range(VARIANTS):
            properties = orjson.dumps(kind.make(rng))
            named = b"" if kind.type != "track" else b'"event":' + orjson.dumps(kind.event) + b","
            made.fragments.append(b'"type":"' + kind.type.encode() + b'",' + named + b'"properties":' + properties)
            made.events.append(kind.event)
            made.properties.append(properties)
    return made
