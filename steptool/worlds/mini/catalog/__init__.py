"""What the bundled world offers: categories of things, and providers with APIs about them.

A provider's role is train where training sees it; dev and test providers are offered in that split only.
Every seen category has a provider that works with ids and one that works with names. Descriptions
are short because a policy pays for each of their tokens in every prompt.
"""

from __future__ import annotations

from steptool.worlds.mini.catalog import going_out, held_out, seen, shopping, travel
from steptool.worlds.mini.schema import Category, Provider

CATEGORIES: dict[str, Category] = {category.name: category for category in (*seen.CATEGORIES, *held_out.CATEGORIES)}
PROVIDERS: dict[str, Provider] = {
    provider.name: provider for provider in (*shopping.PROVIDERS, *travel.PROVIDERS, *going_out.PROVIDERS)
}
