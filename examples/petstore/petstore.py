"""Petstore: a small service to route to.

``GET /api/pets``, ``GET /api/pets/{id}``, ``POST /api/pets``, its description at ``/swagger.json``
(Swagger 2), and ``/healthz``. Pets live in memory.

usage: petstore.py [--host HOST] [--port PORT]
"""

from __future__ import annotations

import argparse
import os

from aiohttp import web

Pet = dict[str, object]
PETS = web.AppKey("pets", dict[int, Pet])

PET_SCHEMA = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "integer", "format": "int64"},
        "name": {"type": "string"},
        "status": {"type": "string"},
    },
}
ID = {"name": "id", "in": "path", "required": True, "type": "integer", "format": "int64"}
SWAGGER = {
    "swagger": "2.0",
    "info": {"title": "Petstore", "version": "1.0.0"},
    "basePath": "/api",
    "consumes": ["application/json"],
    "produces": ["application/json"],
    "paths": {
        "/pets": {
            "get": {
                "operationId": "findPets",
                "description": "All pets, or those with a status.",
                "parameters": [{"name": "status", "in": "query", "type": "string"}],
                "responses": {
                    "200": {
                        "description": "pets",
                        "schema": {"type": "array", "items": {"$ref": "#/definitions/Pet"}},
                    }
                },
            },
            "post": {
                "operationId": "addPet",
                "description": "Add a pet.",
                "parameters": [
                    {"name": "pet", "in": "body", "required": True, "schema": {"$ref": "#/definitions/Pet"}}
                ],
                "responses": {"200": {"description": "the pet", "schema": {"$ref": "#/definitions/Pet"}}},
            },
        },
        "/pets/{id}": {
            "get": {
                "operationId": "findPetById",
                "description": "One pet.",
                "parameters": [ID],
                "responses": {
                    "200": {"description": "the pet", "schema": {"$ref": "#/definitions/Pet"}},
                    "404": {"description": "no such pet"},
                },
            }
        },
    },
    "definitions": {"Pet": PET_SCHEMA},
}


def make_app() -> web.Application:
    app = web.Application()
    app[PETS] = {
        1: {"id": 1, "name": "Dog", "status": "available"},
        2: {"id": 2, "name": "Cat", "status": "pending"},
    }
    app.add_routes(
        [
            web.get("/api/pets", find_pets),
            web.post("/api/pets", add_pet),
            web.get("/api/pets/{id}", find_pet),
            web.get("/swagger.json", swagger),
            web.get("/healthz", healthz),
        ]
    )
    return app


async def find_pets(request: web.Request) -> web.Response:
    status = request.query.get("status")
    return web.json_response(
        [pet for pet in request.app[PETS].values() if status is None or pet.get("status") == status]
    )


async def find_pet(request: web.Request) -> web.Response:
    number = request.match_info["id"]
    pet = request.app[PETS].get(int(number)) if number.isdecimal() else None
    return not_found(f"no pet {number}") if pet is None else web.json_response(pet)


async def add_pet(request: web.Request) -> web.Response:
    try:
        pet = await request.json()
    except ValueError:
        return problem("the body is not JSON")
    if (
        not isinstance(pet, dict)
        or not isinstance(pet.get("id"), int)
        or not isinstance(pet.get("name"), str)
    ):
        return problem("a pet has an id, which is a number, and a name")
    request.app[PETS][pet["id"]] = pet
    return web.json_response(pet)


async def swagger(request: web.Request) -> web.Response:
    return web.json_response(SWAGGER)


async def healthz(request: web.Request) -> web.Response:
    return web.json_response({"alive": True})


def problem(text: str) -> web.Response:
    return web.json_response({"error": text}, status=400)


def not_found(text: str) -> web.Response:
    return web.json_response({"error": text}, status=404)


def main() -> None:
    parser = argparse.ArgumentParser(prog="petstore", description="A small service to route to.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PETSTORE_PORT", "8090")))
    given = parser.parse_args()
    web.run_app(make_app(), host=given.host, port=given.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
